// A keyboard of buttons for mouse, touch, arrow keys and letters; it makes no sound itself.
export const NAMES = ['C', 'C♯', 'D', 'D♯', 'E', 'F', 'F♯', 'G', 'G♯', 'A', 'A♯', 'B'];
const LETTERS = [
  'KeyA',
  'KeyW',
  'KeyS',
  'KeyE',
  'KeyD',
  'KeyF',
  'KeyT',
  'KeyG',
  'KeyY',
  'KeyH',
  'KeyU',
  'KeyJ',
  'KeyK',
];
export const isBlack = pitch => NAMES[pitch % 12].length > 1;
export const noteName = pitch => NAMES[pitch % 12] + (Math.floor(pitch / 12) - 1);
const spoken = pitch => noteName(pitch).replace('♯', ' sharp ');

export class Piano {
  /** `root` holds the keys, low and high bound the pitches, press(pitch) is called when a key goes down. */
  constructor(root, { low, high, press }) {
    Object.assign(this, { root, low, high, press, base: 48 });
    root.addEventListener('pointerdown', e => {
      const key = e.target.closest('button');
      if (key) {
        key.focus();
        this.down(+key.dataset.pitch);
        e.preventDefault();
      }
    });
    root.addEventListener('click', e => {
      if (e.detail === 0) this.down(+e.target.closest('button')?.dataset.pitch);
    }); // Enter, or a screen reader
    root.addEventListener('keydown', e => this.typed(e));
    matchMedia('(max-width: 640px)').addEventListener('change', () => this.show());
    this.show();
  }

  get octaves() {
    return matchMedia('(max-width: 640px)').matches ? 1 : 2;
  }
  get pitches() {
    return Array.from({ length: 12 * this.octaves + 1 }, (_, i) => this.base + i).filter(p => p <= this.high);
  }
  key(pitch) {
    return this.root.querySelector(`[data-pitch="${pitch}"]`);
  }

  show(focus = null) {
    const at = focus ?? this.base,
      whites = this.pitches.filter(p => !isBlack(p)).length;
    this.root.style.setProperty('--whites', whites);
    this.root.replaceChildren(
      ...this.pitches.map(pitch => {
        const key = document.createElement('button'),
          before = this.pitches.filter(p => p < pitch && !isBlack(p)).length;
        Object.assign(key, {
          type: 'button',
          className: isBlack(pitch) ? 'black' : 'white',
          tabIndex: pitch === at ? 0 : -1,
        });
        key.dataset.pitch = pitch;
        key.setAttribute('aria-label', spoken(pitch));
        if (isBlack(pitch)) key.style.setProperty('--before', before);
        else if (pitch % 12 === 0) key.textContent = noteName(pitch);
        return key;
      }),
    );
    this.onshow?.();
  }

  move(by, focus = false) {
    const base = Math.max(
      Math.ceil(this.low / 12) * 12,
      Math.min(Math.floor((this.high - 12 * this.octaves) / 12) * 12, this.base + by),
    );
    if (base === this.base) return;
    this.base = base;
    this.show();
    if (focus) this.key(base).focus();
  }

  down(pitch) {
    if (this.key(pitch)) this.press(pitch);
  }

  typed(e) {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const here = +document.activeElement.dataset.pitch,
      step = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 12, ArrowDown: -12 }[e.key];
    if (step) {
      const to = this.key(here + step);
      if (to) {
        this.key(here).tabIndex = -1;
        to.tabIndex = 0;
        to.focus();
      }
      e.preventDefault();
    } else if (e.code === 'KeyZ' || e.code === 'KeyX') {
      this.move(e.code === 'KeyZ' ? -12 : 12, true);
      e.preventDefault();
    } else if (LETTERS.includes(e.code)) {
      if (!e.repeat) this.down(this.base + LETTERS.indexOf(e.code));
      e.preventDefault();
    }
  }
}
