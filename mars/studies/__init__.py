"Experiments on single questions, run by `mars ablate`."
