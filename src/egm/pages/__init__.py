"""HTML pages to look at answers in: each one file that needs no network and forbids itself all but what lies in it."""
