"""The pages that people see: drawn by the server on the services that the API stands on. Decides nothing by itself."""
