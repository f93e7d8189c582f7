"""The lab: real episodes of small virtual machines, recorded on one Linux machine."""
