"""Rights: what the source of each row and its image file say of licence, author and use."""
