"""Reading of CSV files and workbooks from spreadsheets and scripts."""
