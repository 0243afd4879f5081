"""Does alignment move attention to the artifact, and does that help when a shortcut turns against the model?

`python -m tellsign.alignment.experiment` answers on inpaintings whose region is known. Generated pictures of the fit
mostly carry a cue that has nothing to do with them; at test the cue is on the real ones. The inpainters of the test are
others than those of the fit.
"""
