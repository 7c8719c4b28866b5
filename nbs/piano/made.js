window.MARS_PIANO_ABOUT = {"first": 36, "last": 84, "step": 3, "families": ["keyboard", "guitar", "bass", "flute", "reed", "brass", "string", "vocal", "mallet", "organ", "synth_lead"]};
