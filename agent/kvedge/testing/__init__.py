"""What ships for tests, for those of this project and of its users."""
