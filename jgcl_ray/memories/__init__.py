"""What the contrast losses compare with: momentum rows per image, per cluster, per cluster and camera."""
