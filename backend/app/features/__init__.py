"""What the platform does, a folder for each feature: api (routes), schemas, and where needed service and dependencies.

The modules beside the folders are what routes for images share: admission, idempotency, limits, inputs, answers.
"""
