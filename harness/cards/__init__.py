"""Cards: TOML files that describe models, datasets, challenges and suites, and the dataclasses that they are read into."""
