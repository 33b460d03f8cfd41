"""The report: whether the method's claims hold, on the user's model, data and hardware."""
