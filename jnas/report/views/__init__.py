"""Views: one page for each kind of run, and the parts that a search's page is made of."""
