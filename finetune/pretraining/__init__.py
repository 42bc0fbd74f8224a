"""How the shipped encoders were pretrained, as anyone can run it."""
