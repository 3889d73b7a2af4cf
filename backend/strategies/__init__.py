"""One folder a target protocol, one file a strategy: file = id = function name. Importing a file registers it."""
