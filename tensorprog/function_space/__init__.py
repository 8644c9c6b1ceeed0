"""Function space: training that follows a kernel, in closed form, by the kernel's eigenvectors or by Krylov spaces."""
