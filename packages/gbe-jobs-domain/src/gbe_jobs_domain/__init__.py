"""Jobs domain: what every role agrees on. Ids, definitions, states, payloads, subjects, streams."""
