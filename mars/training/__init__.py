"What a training run needs around its loop: batches, tokens, checkpoints, processes, logs, budgets."
