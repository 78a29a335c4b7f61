"""Reading and writing files: atomic writes, text tables, score files, spreadsheets, downloads, file hashes, locks."""
