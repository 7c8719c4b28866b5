"""Mend rendered pages:  python scripts/own_site.py [FOLDER]

Quarto puts require.js and jQuery, from a CDN, before each page whose notebook has an HTML output, in case that it is a
widget. Ours are players and tables, which need neither, so they are taken out: the pages ask nothing of other hosts.
nbdev links a name in code letters even where it is the text of a link already: the outer link is kept. pandas aligns
words like numbers: cells with words get a class of their own, and tables without long cells one by which no cell wraps.
Quarto calls this after a render (`post-render` in _quarto.yml) and names the folder in QUARTO_PROJECT_OUTPUT_DIR.
"""
import html, os, re, sys
from pathlib import Path

FOREIGN = re.compile(r'<script\b[^>]*\ssrc="(?:https?:)?//[^"]*"[^>]*>\s*</script>\s*', re.I)
DEFINE = re.compile(r'<script\b[^>]*>\s*define\(\s*[\'"]jquery[\'"].*?</script>\s*', re.I|re.S)
NESTED = re.compile(r'(<a\b[^>]*>)\[(<code>[^<]*</code>)\]\([^)\s]*\)(?=</a>)')
FRAME = re.compile(r'<table\b[^>]*\bclass="[^"]*\bdataframe\b[^"]*"[^>]*>.*?</table>', re.S)
CELL = re.compile(r'<td>([^<]*)</td>')
HEAD = re.compile(r'(?<=<th>)[^<]*(?=</th>)')
LONGEST, LONG = 24, 40  # letters of a cell that need not wrap, of one that needs a wide column

def frame(table):
    "A table of pandas: cells with words, and tables without long cells, are marked; long names of columns may break"
    if '<td class="words' in table or 'dataframe digits' in table: return table
    cells = [html.unescape(c).strip() for c in CELL.findall(table)]
    if cells and max(map(len, cells)) <= LONGEST: table = re.sub(r'\bdataframe\b', 'dataframe digits', table, count=1)
    table = HEAD.sub(lambda m: m[0].replace('_', '_<wbr>'), table)
    def cell(m):
        if not re.match(r'\s*(?!NaN\b|nan\b|inf\b)(?:[^\W\d_][\w ]|{)', m[1]): return m[0]
        return f'<td class="words{" long" if len(m[1]) > LONG else ""}">{m[1]}</td>'
    return CELL.sub(cell, table)

def own(page):
    "The page without scripts of other hosts, the line that introduces jQuery and links in links; with marked tables"
    page = NESTED.sub(r'\1\2', DEFINE.sub('', FOREIGN.sub('', page)))
    return FRAME.sub(lambda m: frame(m[0]), page)

def main(folder):
    changed = 0
    for path in sorted(Path(folder).rglob('*.html')):
        page = path.read_text(encoding='utf-8')
        if (now := own(page)) != page:
            path.write_text(now, encoding='utf-8')
            changed += 1
    if changed: print(f'own_site: mended {changed} pages', file=sys.stderr)

if __name__ == '__main__':
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get('QUARTO_PROJECT_OUTPUT_DIR', '_docs'))
