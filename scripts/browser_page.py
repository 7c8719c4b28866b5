"""Put the page that runs the model into the built site:  python scripts/browser_page.py [FOLDER]

Quarto calls this after a render (`post-render` in _quarto.yml) and names the folder in QUARTO_PROJECT_OUTPUT_DIR. The
model is exported here and is no file of the repository. Without npm, or without the extra `web`, the page says that the
model is not part of the build.
"""
import os, sys
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
LINKS = dict(home='../index.html', guide='../guides/browser.html')

def main(folder):
    if not (folder/'index.html').exists(): return # a render of one file
    from mars.apps.browser import export_web, write_page
    from mars.pipeline import Mars
    try:
        sizes = export_web(Mars.from_pretrained('small'), folder/'browser', links=LINKS)
        print(f'browser_page: {sum(sizes.values())/1e6:.1f} MB in {folder.name}/browser', file=sys.stderr)
    except ValueError as e:
        missing = f'The model is not part of this build of the page: the runtime or the exporter was missing ({e}).'
        write_page(folder/'browser', dict(missing=missing), LINKS)
        print(f'browser_page: no model in the page ({e})', file=sys.stderr)

if __name__ == '__main__':
    main(Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get('QUARTO_PROJECT_OUTPUT_DIR', '_docs')))
