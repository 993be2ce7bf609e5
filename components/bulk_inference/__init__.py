"""Any number of images through a pushed model, to a table on disk or in a bucket."""
