"From a model and real notes to a report: classifier, protocol, report."
