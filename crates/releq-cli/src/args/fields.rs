//! Which options set the fields that errors of the libraries name.

/// Fields as messages name them, and the options that set them. Those that options' own parsers check in full do not
/// come up in messages.
const OPTIONS: [(&str, &str); 9] = [
    ("NameMap::ignore", "--ignore LAYER"),
    ("bad_images", "--skip-bad-images"),
    ("batch_size", "--batch-size"),
    ("class_list", "--classes"),
    ("limits", "--limit"),
    ("max_bytes", "--image-memory"),
    ("on_miss", "--on-miss nearest"),
    ("size.crop", "--resize-shorter"),
    ("size.resize", "--resize-shorter"),
];

/// The options for the fields that `message` names in backticks, as a line of its own; empty if it names none that an
/// option sets, or names the option as well.
pub(crate) fn options_named_in(message: &str) -> String {
    let named = OPTIONS.iter().find(|(field, option)| {
        message.contains(&format!("`{field}`")) && !message.contains(option)
    });
    named.map_or_else(String::new, |(field, option)| {
        format!("\n\nOn the command line, `{field}` is {option}.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_of_a_field_is_named_unless_it_is_there() {
        let told = options_named_in("schedule: `batch_size` is 9, but there are 3 images");
        assert_eq!(told, "\n\nOn the command line, `batch_size` is --batch-size.");
        for silent in ["batch_size is 9", "`batch_size` is 9, see --batch-size", "`other` is 9", ""]
        {
            assert_eq!(options_named_in(silent), "", "{silent}");
        }
    }

    /// Options that were renamed would send people astray.
    #[test]
    fn the_options_exist() {
        use clap::CommandFactory;
        let command = crate::cli::Cli::command();
        let options: Vec<String> = command
            .get_subcommands()
            .flat_map(|command| command.get_arguments())
            .filter_map(|argument| argument.get_long().map(|long| format!("--{long}")))
            .collect();
        for (field, option) in OPTIONS {
            let long = option.split(' ').next().unwrap_or_default();
            assert!(options.iter().any(|known| known == long), "{field}: {option}");
        }
    }
}
