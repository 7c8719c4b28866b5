"Test files that take longest come first, so that no process of a parallel run ends long after the others."
LONGEST = ('test_site', 'test_app', 'test_cli', 'test_evaluate', 'test_reproduce_weights', 'test_newcomer', 'test_types', 'test_train', 'test_processes', 'test_sat_study',
           'test_instruments', 'test_benchmarks', 'test_ablations', 'test_aar', 'test_var', 'test_like', 'test_magnet', 'test_classifier', 'test_without_torchaudio')

def pytest_collection_modifyitems(items):
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank))) # stable: the order within a file stays
