"""How the shipped weights are made: data, one recipe per stage, export."""
