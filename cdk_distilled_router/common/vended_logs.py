"""Names of log groups to which services other than Lambda deliver logs."""

# A delivery to a group without this prefix adds to a resource policy of CloudWatch Logs, which has 5,120
# characters for the whole account and Region: in a busy account, nothing more can be delivered (Step
# Functions developer guide, bp-cwl).
PREFIX = "/aws/vendedlogs"
SERVICES = ("apigateway", "states")
"""Parts of the names, one for each service that delivers."""
