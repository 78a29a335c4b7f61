"""Reading and writing files: atomic writes, text tables, tables of scores, downloads."""
