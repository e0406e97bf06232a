"""Reading CSV files and workbooks that people wrote."""
