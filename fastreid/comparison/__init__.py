"""Several methods, several seeds each, trained and scored under one set of conditions."""
