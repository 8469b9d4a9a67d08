"""What a layer can do on a set: strategies, what they need and leave, what they compute, what memory they hold."""
