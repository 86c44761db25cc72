"""What to install when a package is missing that an extra brings."""

__all__ = ["missing_extra"]

# Packages by the names that they are imported under, and the extra that has them.
_EXTRAS = {
    **dict.fromkeys(
        ("PIL", "google", "grain", "orbax", "pyarrow", "sklearn", "tyro"), "train"
    ),
    "tensorflow_datasets": "train",
    "huggingface_hub": "hub",
    "matplotlib": "plots",
    "tensorboardX": "tensorboard",
}


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """One line that says what to install; None if no extra has the missing package."""
    package = (error.name or "").partition(".")[0]
    if package not in (*_EXTRAS, "flax", "jax", "rich"):
        return None
    extra = _EXTRAS.get(package, "train")
    try:
        from cnn_flax.installing import install_command

        command = install_command(extra)
    except ModuleNotFoundError:  # Not even JAX: a checkout that was never installed.
        command = f"pip install -e '.[{extra}]', in the checkout"
    return f"The package {package!r} is missing: {command}"
