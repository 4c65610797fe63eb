"""Trinity Gate's page in a headless Chromium, on the real service with the real engine."""
