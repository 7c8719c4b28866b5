"Components of the models and of the pipeline."
