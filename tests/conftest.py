"The longest test files run first, to balance a parallel run."
LONGEST = ('test_train', 'test_processes', 'test_app', 'test_benchmarks', 'test_site', 'test_browser', 'test_evaluate', 'test_cli', 'test_types', 'test_without_torchaudio', 'test_var',
           'test_tokenizer', 'test_phase', 'test_systems', 'test_reference', 'test_ablations', 'test_aar', 'test_magnet', 'test_reproduce_weights', 'test_sat_study')

def pytest_collection_modifyitems(items):
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank))) # stable: the order within a file stays
