"""The ServerApp: federated rounds, stage 2, evaluation, and the report. Never imports `clients`."""
