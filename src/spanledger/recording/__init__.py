"""From a finished call to a kept record: recorder, outbox, delivery."""
