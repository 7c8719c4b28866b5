"""Metadata lives in settings.ini, where nbdev reads it too."""
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='], interpolation=None)
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']

extras = {name: cfg[f'{name}_requirements'].split() for name in ('nb', 'app', 'web', 'fad', 'f0', 'dev')}
extras['dev'] += extras['nb'] + extras['app'] + extras['web'] + extras['fad'] + extras['f0']

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0',
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    packages=find_packages(include=['mars', 'mars.*']), include_package_data=True,
    package_data={'mars': ['CREDITS.md', 'py.typed', 'weights/**/*', 'examples/*', 'examples/audio/*', 'apps/page/*']},
    python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(), extras_require=extras,
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Science/Research',
                 'License :: OSI Approved :: Apache Software License', 'Topic :: Multimedia :: Sound/Audio :: Sound Synthesis',
                 *(f'Programming Language :: Python :: 3.{v}' for v in range(10, 15))],
    entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': ['mars=mars._modidx:d']},
    zip_safe=False)
