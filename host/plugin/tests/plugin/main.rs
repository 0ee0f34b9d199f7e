//! Plugins as operators meet them: real components in a directory, good ones and evil ones.

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod evil;
mod kinds;
#[cfg(test)]
mod loading;
#[cfg(test)]
mod observing;
#[cfg(test)]
mod path;
#[cfg(test)]
mod services;
#[cfg(test)]
mod support;
