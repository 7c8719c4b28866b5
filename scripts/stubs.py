"""Write what a type checker should know of the package: mars/*.pyi.

    python scripts/stubs.py [--check]

The notebooks build a class step by step (`Mars.encode = _encode`), which no checker follows. `merged` moves each such function
into its class, for the modules that have such. Without its bodies that is the stub, which users' checkers read; with them it is what tests/test_types.py has
mypy check. --check writes nothing and fails where a stub is not that of its module.
"""
import argparse, ast, copy, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIG = '''
@classmethod
def preset(cls, name: str, *args: Any, **fields: Any) -> Self: raise NotImplementedError
@staticmethod
def presets() -> dict: raise NotImplementedError
@classmethod
def from_dict(cls, d: dict) -> Self: raise NotImplementedError
'''
HEAD = 'from typing import Any\nfrom typing_extensions import Self\n'
SHAPES = {str: 'str', int: 'int', float: 'float', bool: 'bool'}

def parse(text): return ast.parse(text).body
def name_of(node): return node.id if isinstance(node, ast.Name) else None

def pairs(node): # of an assignment, also of several at once -> (target, value)
    for target in node.targets:
        both = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) and len(target.elts) == len(node.value.elts)
        yield from zip(target.elts, node.value.elts) if both else [(target, node.value)]

def put(cls, node, name): # in the place of what the class had by that name
    cls.body = [n for n in cls.body if getattr(n, 'name', None) != name] + [node]

def method(value, name, functions): # `_f`, `property(_f)`, `classmethod(_f)`, or anything else -> a statement of a class body
    kind = name_of(value.func) if isinstance(value, ast.Call) and len(value.args) == 1 else None
    f = functions.get(name_of(value.args[0] if kind in ('property', 'classmethod', 'staticmethod') else value))
    if f is None: return ast.Assign([ast.Name(name, ast.Store())], value, lineno=0)
    f = copy.deepcopy(f)
    f.name = name
    if kind: f.decorator_list.insert(0, ast.Name(kind, ast.Load()))
    if f.args.args and kind != 'staticmethod': f.args.args[0].annotation = None # `self:Mars` goes without saying
    return f

def merged(text): # source -> ast.Module, in which the classes are whole
    "Move functions that are assigned to classes into them."
    tree = ast.parse(text)
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    functions, body, moved = {}, [], set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef): functions[node.name] = node
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and name_of(node.value.func) == 'config_class' and (cls := classes.get(name_of(node.value.args[0]))):
            for n in parse(CONFIG): put(cls, n, n.name)
        elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Attribute) and name_of(t.value) in classes for t, _ in pairs(node)):
            for t, value in pairs(node):
                if not (isinstance(t, ast.Attribute) and name_of(t.value) in classes): body.append(ast.Assign([t], value, lineno=0)); continue
                put(classes[t.value.id], method(value, t.attr, functions), t.attr)
                moved |= {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
        else: body.append(node)
    used = {n.id for part in body for n in ast.walk(part) if isinstance(n, ast.Name)}
    body = [n for n in body if not (isinstance(n, ast.FunctionDef) and n.name.startswith('_') and n.name in moved - used)]
    at = next((i for i, n in enumerate(body) if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))), 0) # after the docstring
    tree.body = body[:at] + parse(HEAD) + body[at:]
    return ast.fix_missing_locations(tree)

def optional(annotation): return ast.BinOp(annotation, ast.BitOr(), ast.Constant(None)) if annotation is not None and ast.unparse(annotation) not in ('Any', 'None') else annotation

def signature(f): # -> the function without body and defaults
    args = f.args
    for group, defaults in ((args.posonlyargs + args.args, [None]*(len(args.posonlyargs + args.args) - len(args.defaults)) + args.defaults), (args.kwonlyargs, args.kw_defaults)):
        for a, d in zip(group, defaults):
            if name_of(a.annotation) == 'Path': a.annotation = parse('str | Path')[0].value # text will do
            if isinstance(d, ast.Constant) and d.value is None: a.annotation = optional(a.annotation)
            elif isinstance(d, ast.Constant) and a.annotation is None and type(d.value) in SHAPES and not isinstance(d.value, str): a.annotation = ast.Name(SHAPES[type(d.value)] if not isinstance(d.value, (int, float)) or isinstance(d.value, bool) else 'float', ast.Load())
    args.defaults, args.kw_defaults = [ast.Constant(...) for _ in args.defaults], [d and ast.Constant(...) for d in args.kw_defaults]
    doc = ast.get_docstring(f)
    f.body = ([ast.Expr(ast.Constant(doc))] if doc else []) + [ast.Expr(ast.Constant(...))]
    return f

def kind(value, known): # an expression -> its annotation, as far as it shows
    if isinstance(value, ast.Constant): return ast.Name(SHAPES.get(type(value.value), 'Any'), ast.Load())
    if isinstance(value, ast.Name): return known.get(value.id)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in ('eval', 'to', 'float'): return kind(value.func.value, known)
    if isinstance(value, ast.Call) and name_of(value.func) in ('dict', 'list', 'tuple', 'int', 'float', 'str', 'bool', 'set'): return ast.Name(value.func.id, ast.Load())
    if isinstance(value, ast.BoolOp): # `cfg or Config()` is no None any more, `var and var.eval()` may be one
        found = kind(value.values[-1 if isinstance(value.op, ast.And) else 0], known)
        return optional(found) if isinstance(value.op, ast.And) else found
    return {ast.Tuple: ast.Name('tuple', ast.Load()), ast.List: ast.Name('list', ast.Load()), ast.Dict: ast.Name('dict', ast.Load())}.get(type(value))

def declared(name, annotation): return ast.AnnAssign(ast.Name(name, ast.Store()), annotation or ast.Name('Any', ast.Load()), simple=1)

def attributes(cls): # what methods set on self -> declarations
    have = {getattr(n, 'name', None) for n in cls.body} | {name_of(n.target) for n in cls.body if isinstance(n, ast.AnnAssign)} | {name_of(t) for n in cls.body if isinstance(n, ast.Assign) for t, _ in pairs(n)}
    for f in [n for n in cls.body if isinstance(n, ast.FunctionDef)]:
        known = {a.arg: a.annotation for a in f.args.args}
        for node in ast.walk(f):
            for t, value in pairs(node) if isinstance(node, ast.Assign) else ():
                for t in t.elts if isinstance(t, ast.Tuple) else [t]:
                    if isinstance(t, ast.Attribute) and name_of(t.value) == 'self' and t.attr not in have:
                        have.add(t.attr)
                        yield declared(t.attr, kind(value, known) if not isinstance(value, ast.Tuple) else None)

def bare(node): # a statement -> those that stand for it in a stub
    if isinstance(node, (ast.Import, ast.ImportFrom)): return [node]
    if isinstance(node, ast.FunctionDef): return [signature(node)]
    if isinstance(node, ast.ClassDef):
        inside = [*attributes(node), *(x for n in node.body for x in bare(n))]
        node.body = [n for n in inside if not isinstance(n, ast.Import)] or [ast.Expr(ast.Constant(...))]
        return [node]
    if isinstance(node, ast.AnnAssign): node.value = node.value and ast.Constant(...); return [node]
    if isinstance(node, ast.Assign):
        if ast.unparse(node.targets[0]) == '__all__' or isinstance(node.value, ast.Call) and name_of(node.value.func) == 'namedtuple': return [node]
        return [declared(n.id, kind(v, {}) if not isinstance(t, ast.Tuple) else None) for t, v in pairs(node) for n in ast.walk(t) if isinstance(n, ast.Name)]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str): return [node]
    return []

def stub(text): # source of a module -> its stub
    "Write a module without its bodies."
    tree = merged(text)
    tree.body = [x for n in tree.body for x in bare(n)]
    return '# Made by scripts/stubs.py from the module beside it.\n' + ast.unparse(ast.fix_missing_locations(tree)) + '\n'

def modules(): return [p for p in sorted((ROOT/'mars').glob('*.py')) if not p.stem.startswith('_')]

def needs_stub(text): # whether a checker would miss something in the module itself
    return re.search(r'^config_class\(|^[A-Z]\w+\.\w+(, [A-Z]\w+\.\w+)* = ', text, re.M) is not None

def main(argv=None):
    "Write the stubs, or name those that are old."
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--check', action='store_true', help='write nothing; fail where a stub is old')
    a, made = ap.parse_args(argv), {p.with_suffix('.pyi'): stub(p.read_text(encoding='utf-8')) for p in modules() if needs_stub(p.read_text(encoding='utf-8'))}
    old = [p for p in {*made, *(ROOT/'mars').glob('*.pyi')} if not p.exists() or p not in made or p.read_text(encoding='utf-8') != made[p]]
    if a.check:
        if old: print(f'{", ".join(sorted(p.name for p in old))}: not that of the module; run python scripts/stubs.py', file=sys.stderr)
        return int(bool(old))
    for p in old: p.write_text(made[p], encoding='utf-8') if p in made else p.unlink()
    return 0

if __name__ == '__main__': sys.exit(main())
