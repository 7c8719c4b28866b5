// Search, menu, copy buttons and the table of contents of the pages that the Quarto stand-in makes.
(() => {
  const $ = s => document.querySelector(s), $$ = s => [...document.querySelectorAll(s)];
  const up = document.documentElement.dataset.up;  // from this page to the front page's folder
  const box = $('#page-search'), list = $('#page-results'), menu = $('.menu');
  const escape = s => s.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
  const marked = (s, terms) => {
    const hit = new RegExp('(' + terms.map(t => t.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|') + ')', 'gi');
    return s.split(hit).map((part, i) => i % 2 ? `<mark>${escape(part)}</mark>` : escape(part)).join('');
  };

  function find(query) {
    const terms = query.toLowerCase().split(/\s+/).filter(Boolean);
    if (!terms.length) return [];
    return SEARCH.map(entry => {
      const [, title, heading, , body] = entry.map(s => s.toLowerCase());
      const score = terms.reduce((sum, t) => {
        const s = 8 * heading.includes(t) + (heading ? 2 : 6) * title.includes(t) + body.includes(t);
        return s ? sum + s : -Infinity;
      }, 0);
      return { entry, score, terms };
    }).filter(r => r.score > 0).sort((a, b) => b.score - a.score).slice(0, 12);
  }

  function show() {
    const found = find(box.value);
    list.hidden = !box.value.trim();
    list.innerHTML = found.map(({ entry: [page, title, heading, anchor, body], terms }, i) => {
      const at = Math.max(0, body.toLowerCase().indexOf(terms[0]) - 50);
      const cut = (at ? '... ' : '') + body.slice(at, at + 150);
      return `<a role="option" href="${up}${page}${anchor ? '#' + anchor : ''}"${i ? '' : ' class="at"'}><b>${marked(heading || title, terms)}</b>` +
        `${heading ? ' - ' + escape(title) : ''}<small>${marked(cut, terms)}</small></a>`;
    }).join('') || '<p>Nothing found.</p>';
  }

  box.addEventListener('input', show);
  box.addEventListener('focus', show);
  box.addEventListener('keydown', e => {
    const rows = [...list.querySelectorAll('a')], at = rows.findIndex(r => r.classList.contains('at'));
    if (e.key === 'Escape') { box.value = ''; show(); box.blur(); }
    if (e.key === 'Enter' && rows[at]) rows[at].click();
    const step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (!step || !rows.length) return;
    e.preventDefault();
    rows[at]?.classList.remove('at');
    const next = rows[(at + step + rows.length) % rows.length];
    next.classList.add('at');
    next.scrollIntoView({ block: 'nearest' });
  });
  document.addEventListener('click', e => { if (!e.target.closest('.search') || e.target.closest('#page-results a')) list.hidden = true; });
  document.addEventListener('keydown', e => {
    if (e.key === '/' && !/INPUT|TEXTAREA|SELECT/.test(document.activeElement.tagName)) { e.preventDefault(); box.focus(); }
  });

  const side = $('.side'), here = $('.side .here');  // the list is longer than the screen
  if (here) side.scrollTop += here.getBoundingClientRect().top - side.getBoundingClientRect().top - side.clientHeight / 2;

  const open = on => { document.body.classList.toggle('open', on); menu.setAttribute('aria-expanded', on); };
  menu.addEventListener('click', () => open(!document.body.classList.contains('open')));
  $$('.side a').forEach(a => a.addEventListener('click', () => open(false)));
  list.addEventListener('click', () => open(false));

  $$('div.sourceCode').forEach(block => {
    const button = Object.assign(document.createElement('button'), { className: 'copy', textContent: 'Copy', type: 'button' });
    button.addEventListener('click', async () => {
      try { await navigator.clipboard.writeText(block.querySelector('code').innerText); button.textContent = 'Copied'; }
      catch { getSelection().selectAllChildren(block.querySelector('code')); button.textContent = 'Selected'; }
      setTimeout(() => { button.textContent = 'Copy'; }, 1500);
    });
    block.append(button);
  });

  // Comparing sounds is easier when one stops as the next starts.
  document.addEventListener('play', e => $$('audio').forEach(a => { if (a !== e.target) a.pause(); }), true);

  // On a narrow screen the table of contents is a menu
  const toc = $('.toc details'), narrow = matchMedia('(max-width: 1439px)');
  if (toc) {
    const fit = () => { toc.open = !narrow.matches; };
    narrow.addEventListener('change', fit);
    document.addEventListener('click', e => { if (narrow.matches && (!toc.contains(e.target) || e.target.closest('a'))) toc.open = false; });
    fit();
  }

  // A wide equation is set smaller before it scrolls
  $$('.equation').forEach(e => {
    const share = e.clientWidth / e.scrollWidth;
    if (share < 1) e.style.fontSize = `${Math.max(0.85, 1.1 * share * 0.99)}em`;
  });

  const folds = $$('details.fold');
  if (folds.length > 1) {
    const button = Object.assign(document.createElement('button'), { className: 'sources', textContent: 'Show all source', type: 'button' });
    button.addEventListener('click', () => {
      const open = !folds.every(f => f.open);
      folds.forEach(f => { f.open = open; });
      button.textContent = `${open ? 'Hide' : 'Show'} all source`;
    });
    $('.title').append(button);
  }

  const links = new Map($$('.toc a').map(a => [decodeURIComponent(a.hash.slice(1)), a]));
  const heads = [...links.keys()].map(id => document.getElementById(id)).filter(Boolean);
  const follow = () => {
    const at = heads.filter(h => h.getBoundingClientRect().top < 120).pop();
    links.forEach((a, id) => a.classList.toggle('here', at?.id === id));
  };
  if (heads.length) { addEventListener('scroll', follow, { passive: true }); follow(); }
})();
