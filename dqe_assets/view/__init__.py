"""Looking at the samples in a browser: thumbnails, what is known of each sample, and the pages that show both."""
