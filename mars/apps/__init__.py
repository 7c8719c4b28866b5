"What users run: instruments and MIDI, the web page, troubleshooting."
