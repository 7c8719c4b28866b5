"""Set the API blocks of processed notebooks:  python scripts/api_blocks.py [FOLDER]

nbdev shows an exported cell as a signature with every type and comment in it (`show_doc`), followed by the open source,
which repeats the signature. Here each block becomes one short signature, the docstring and a table of arguments; the
source stands below it, folded. Quarto calls this before a render (`pre-render` in _quarto.yml), in nbdev's folder
`_proc`. A second run changes nothing.
"""
import ast, functools, io, json, re, sys, tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r'---\n+\[source\]\((?P<link>[^)]*)\)[^\n]*\n+(?P<head>#+ [^\n]+)\n+'
    r'```python\n(?P<code>.*?)\n```(?P<doc>.*)', re.S)
LINK = re.compile(r'\[(`[^`\n]+`)\]\([^)\s]+\)')
QUOTES, OPEN, CLOSE = '\'"', '([{', ')]}'
WIDTH = 96  # letters of a line in a block

def text(x): return ''.join(x) if isinstance(x, list) else x or ''

# ---- the signature that nbdev prints ----

def split(code, mark):
    "`code` cut at each `mark` outside quotes and brackets"
    parts, depth, quote = [''], 0, ''
    for c in code:
        if quote: quote = '' if c == quote else quote
        elif c in QUOTES: quote = c
        else: depth += (c in OPEN)-(c in CLOSE)
        if c == mark and not depth and not quote: parts.append('')
        else: parts[-1] += c
    return parts

def uncomment(line):
    "(code, comment) of a line"
    quote = ''
    for i, c in enumerate(line):
        if quote: quote = '' if c == quote else quote
        elif c in QUOTES: quote = c
        elif c == '#' and (not i or line[i-1] == ' '): return line[:i].rstrip(), line[i+1:].strip()
    return line.rstrip(), ''

def argument(code):
    "(name with stars, type, default) of `name:type=default`"
    head, *default = split(code, '=')
    name, *kind = split(head, ':')
    return name.strip(), ':'.join(kind).strip(), '='.join(default).strip()

def read(code):
    "(name, [[argument, type, default, description], ...], [returned type, description]), or None for no signature"
    start = re.match(r'(?:async )?def ([\w.]+)\(', code)
    if not start: return None
    lines = code[start.end():].split('\n')
    last = [i for i, line in enumerate(lines) if re.match(r'.*\)(->.*)?:', uncomment(line)[0])]
    if not last: return None
    end = last[-1]
    closing, note = uncomment(lines[end])
    inner, _, returned = closing[:-1].rpartition(')->') if ')->' in closing else (closing[:-2], '', '')
    args = []
    for line in [*lines[:end], inner]:
        row, comment = uncomment(line)
        args += [[*argument(a), ''] for a in split(row, ',') if a.strip()]
        if comment and args: args[-1][3] = f'{args[-1][3]} {comment}'.strip()
    return start[1], args, [returned, ' '.join([note, *(uncomment(x)[1] for x in lines[end+1:])]).strip()]

# ---- what only the module knows ----

@functools.lru_cache(None)
def module(path):
    "({qualified name: node}, {line: comment}) of a source file"
    source, nodes, notes = Path(path).read_text(encoding='utf-8'), {}, {}
    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                nodes[prefix+child.name] = child
                visit(child, f'{prefix}{child.name}.')
    visit(ast.parse(source), '')
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT: notes[token.start[0]] = token.string.lstrip('# ').strip()
    return nodes, notes

def parameters(node):
    a = node.args
    return [*a.posonlyargs, *a.args, *filter(None, [a.vararg]), *a.kwonlyargs, *filter(None, [a.kwarg])]

def descriptions(link, name):
    """({argument: comment}, first argument by keyword only, comment of a definition in one line) from the source

    nbdev finds no comments of a class, and gives that of `def f(a, b): # ...` to `b` whatever it describes.
    """
    found = re.search(r'/blob/[^/]+/([\w/]+\.py)#', link)
    if not found or not (ROOT/found[1]).exists(): return {}, None, ''
    nodes, notes = module(ROOT/found[1])
    node, said = nodes.get(name), {}
    if isinstance(node, ast.ClassDef):
        fields = [f for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
        said = {f.target.id: notes.get(f.end_lineno, '') for f in fields}
        node = nodes.get(f'{name}.__init__')
    if node is None: return said, None, ''
    args = parameters(node)
    line = notes.get(node.lineno, '') if all(a.end_lineno == node.lineno for a in args) else ''
    for arg, after in zip(args, [*args[1:], None]):
        ends_line = after is None or after.lineno > arg.end_lineno
        if ends_line and not line: said[arg.arg] = notes.get(arg.end_lineno, '')
    keyword = node.args.kwonlyargs[0].arg if node.args.kwonlyargs and not node.args.vararg else None
    return said, keyword, line

# ---- the block ----

def escape(words):
    "A comment as a table cell: markdown only in code letters and links"
    parts = re.split(r'(`[^`]*`|\[`[^`]*`\]\([^)\s]*\))', words)
    return ''.join(p if i % 2 else re.sub(r'([|*<~^@$\\]|--)', r'\\\1', p) for i, p in enumerate(parts))

def quote(code): return f'`{code}`' if code else ''

def inferred(kind, default):
    "True where nbdev has the type from the default alone, or no type"
    try: return kind in ('', type(ast.literal_eval(default)).__name__)
    except (ValueError, SyntaxError): return not kind

def table(args, returned):
    "A pipe table of the arguments, or '' where none is described: then the signature says as much"
    if not any(arg[3] for arg in args): return ''
    shown = [arg for arg in args if arg[3] or not inferred(arg[1], arg[2])]
    rows = [[quote(name), quote(kind), quote(default), escape(words)] for name, kind, default, words in shown]
    if returned[1]: rows.append(['*returns*', quote(returned[0]), '', escape(returned[1])])
    used = [i for i in range(4) if any(row[i] for row in rows)]
    # pandoc makes relative widths of dashes
    dashes = ['-'*min(max(len(row[i]) for row in rows)+2, (24, 28, 26, 90)[i]) for i in range(4)]
    lines = [['argument', 'type', 'default', 'description'], dashes, *rows]
    return '\n'.join('| '+' | '.join(line[i] for i in used)+' |' for line in lines)

def signature(name, args, keyword, returned, typed, note):
    "`name(argument=default)`, with types where no table has them"
    parts = []
    for arg, kind, default, _ in args:
        if arg == keyword: parts.append('*')
        kind = f': {kind}' if typed and not inferred(kind, default) else ''
        parts.append(arg+kind+(' = ' if kind and default else '=' if default else '')+default)
    returns = f' -> {returned[0]}' if returned[0] not in ('', 'None') and not returned[1] else ''
    line = f'{name}({", ".join(parts)}){returns}'
    if len(line) > WIDTH:
        rows = ['']
        for part in parts:
            if rows[-1] and len(rows[-1])+len(part) > WIDTH-8: rows.append('')
            rows[-1] += f'{part}, '
        line = f'{name}(\n    '+'\n    '.join(r.rstrip() for r in rows)[:-1]+f'){returns}'
    if not note: return line
    return f'# {note}\n{line}' if '\n' in line or len(line)+len(note) > WIDTH else f'{line}  # {note}'

def returns(returned):
    kind = f' {quote(returned[0])}:' if returned[0] not in ('', 'None') else ''
    return f'*Returns*{kind} {escape(returned[1])}' if returned[1] else ''

def docstring(doc):
    "nbdev sets the first line in italics, which a star would end; without a docstring it has a sentence of its own"
    doc = doc.replace('*Call self as a function.*', '')
    doc = re.sub(r'\A\*(.+?)\*$', r'\1', doc.strip(), count=1, flags=re.M)
    return re.sub(r'(`[^`]*`|\*\*[^*]+\*\*)|(?<=\S)\*(?=\S)', lambda m: m[1] or r'\*', doc)

def complete(link, name, args, returned):
    "Add to arguments and return value what the source says; (first argument by keyword only, comment on the call)"
    said, keyword, line = descriptions(link, name)
    note, last = '', args[-1] if args else ['']*4
    if line:
        last[3] = ''
        describes_result = line.startswith('->') or returned[0] not in ('', 'None') and ' -> ' not in line
        if describes_result: returned[1] = line
        elif len(args) == 1 and ' -> ' not in line: last[3] = line
        else: note, returned[1] = line, ''
    for arg in args:
        arg[1] = '' if arg[1] == 'NoneType' else arg[1]
        arg[3] = arg[3] or said.get(arg[0].lstrip('*'), '')
        if arg[3].startswith('->'): returned[1], arg[3] = returned[1] or arg[3], ''
    if last[3] == returned[1]: last[3] = ''
    returned[1] = returned[1].removeprefix('->').strip()
    return keyword, note

def block(md):
    "The block that `md`, an answer of `show_doc`, becomes"
    found = BLOCK.fullmatch(md.strip())
    if not found: return md
    link, name, code, below = found['link'], found['head'].lstrip('# '), LINK.sub(r'\1', found['code']), ''
    if parsed := read(code):
        _, args, returned = parsed
        keyword, note = complete(link, name, args, returned)
        arguments = table(args, returned)
        code = signature(name, args, keyword, returned, not arguments, note)
        below = arguments or returns(returned)
    parts = [found['head'], '::::: {.api}', f'[source]({link}){{.api-source}}', f'```python\n{code}\n```',
        docstring(found['doc']), below, ':::::']
    return '\n\n'.join(p for p in parts if p)+'\n'

# ---- the notebook ----

def is_doc(cell): return cell.get('has_sd') and cell['cell_type'] == 'code'
def is_source(cell): return cell['cell_type'] == 'code' and bool(re.match(r'#\| code-fold: ', text(cell['source'])))
def shown_name(cell): return re.search(r'show_doc\(([\w.]+)', text(cell['source']))[1]
def markdown(out): return text(out.get('data', {}).get('text/markdown'))

def line_of(cell):
    found = re.search(r'\.py#L(\d+)', ''.join(map(markdown, cell.get('outputs', []))))
    return int(found[1]) if found else 0

def defined(cell):
    "Names of the functions, classes and variables of a cell"
    try: tree = ast.parse(re.sub(r'^#\|.*$', '', text(cell['source']), flags=re.M))
    except SyntaxError: return []
    names = []
    for n in tree.body:
        if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): names.append(n.name)
        elif isinstance(n, ast.Assign): names += [t.id for t in n.targets if isinstance(t, ast.Name)]
    return names

def fold(cell, before):
    "Close the source, and name what no block right before it names"
    more = [n for n in defined(cell) if n not in before]
    summary = 'Source'+(': ' if more else '')+', '.join(more[:6])+(', ...' if len(more) > 6 else '')
    head = re.compile(r'\A(#\| code-fold: )\w+\n(#\| code-summary: ).*')
    cell['source'] = head.sub(lambda m: f'{m[1]}true\n{m[2]}"{summary}"', text(cell['source']))

def order(run):
    "The blocks of a cell in the order of its definitions, then its source; nbdev has them reversed around the source"
    out, loose = [], list(run)
    for cell in [c for c in run if is_source(c)]:
        names, at = defined(cell), next(i for i, c in enumerate(loose) if c is cell)
        own = [c for c in loose if is_doc(c) and shown_name(c) in names]
        before = [c for c in loose[:at] if not any(c is o for o in own)]
        out += [*sorted(before, key=line_of), *sorted(own, key=line_of), cell]
        loose = [c for c in loose if not any(c is o for o in out)]
    return out+sorted(loose, key=line_of)

def arrange(cells):
    out, run = [], []
    for cell in cells:
        if is_doc(cell) or is_source(cell): run.append(cell)
        else: out, run = [*out, *order(run), cell], []
    return out+order(run)

def mend(nb):
    nb['cells'], names = arrange(nb['cells']), []
    for cell in nb['cells']:
        if is_source(cell): fold(cell, names)
        names = [*names, shown_name(cell)] if is_doc(cell) else []
        for out in cell.get('outputs', []) if cell['cell_type'] == 'code' else []:
            if markdown(out).startswith('---\n'): out['data']['text/markdown'] = block(markdown(out))
    return nb

def main(folder):
    for path in sorted(Path(folder).rglob('*.ipynb')):
        if any(p[0] in '._' for p in path.relative_to(folder).parts): continue
        old = path.read_text(encoding='utf-8')
        new = json.dumps(mend(json.loads(old)), indent=1, ensure_ascii=False)
        if new != old: path.write_text(new, encoding='utf-8')

if __name__ == '__main__': main(sys.argv[1] if len(sys.argv) > 1 else '.')
