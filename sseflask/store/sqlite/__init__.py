"""The store in SQLite files, which all processes of one machine share."""
