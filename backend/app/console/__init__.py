"""The console: pages that the server renders from templates. All its rules are those of the services under the API."""
