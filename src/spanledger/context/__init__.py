"""Whose a call is: attribution as private context, never baggage."""
