// A plain script, so that it runs where modules do not: says what the browser lacks.
(function () {
  var lacks =
    typeof WebAssembly !== 'object'
      ? 'WebAssembly, which runs the model'
      : !('noModule' in document.createElement('script')) || typeof Worker !== 'function'
        ? 'module workers'
        : typeof DecompressionStream !== 'function'
          ? 'DecompressionStream, which unpacks the model'
          : '';
  var message =
    location.protocol === 'file:'
      ? 'This page needs a web server: run "python -m http.server" in its folder and open http://localhost:8000.'
      : lacks &&
        'This browser has no ' + lacks + '. Any browser of 2023 or later has it, unless a setting turns it off.';
  if (!message) return;
  document.documentElement.dataset.unsupported = '1';
  var place = document.getElementById('support');
  place.textContent = message;
  place.hidden = false;
})();
