"""From a schedule to a mask: how much goes, how important each entry is, and where zeros may fall."""
