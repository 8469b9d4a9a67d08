"""From a layout to another: which collectives, between whom, of which boxes. Makes all communication choices."""
