"""What a call of a model needs: providers, the providers' own forms, what is counted, what must not leave."""
